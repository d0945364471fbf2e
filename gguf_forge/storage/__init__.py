"""Files that are read and written. Protocols hide where the bytes are stored; `local` implements them for disks."""
