"""Scripts that run in the environments of other libraries, which ``make peers`` makes."""
