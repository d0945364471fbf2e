"""Files on this machine's disks: the system calls of a run, locks, journals, and outputs that appear when complete."""
