"""`sdjob doctor`: looks at this machine, and at what a job asks of it and of its places. Trains and stages nothing."""
