"""What a job will take, told from the job file and the model's configuration alone: work, memory, time and money. Pure."""
