"""The run folder: writes, resumes and reads the records of a run."""
