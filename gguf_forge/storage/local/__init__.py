"""Files of this machine's disks: every system call of a run, locks, journals, complete outputs."""
