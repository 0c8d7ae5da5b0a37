"""Running a plan: its checkpoints, cells and samples, and the progress that people see."""
