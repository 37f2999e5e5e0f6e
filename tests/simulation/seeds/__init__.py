"""The seeds of every run of the suite, in files of equal length: pytest-xdist gives a file to one process."""
