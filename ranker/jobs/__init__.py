"""Files of any size, scored and filtered part by part: a job that was stopped goes on where it was."""
