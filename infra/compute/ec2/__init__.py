"""Training on rented EC2 instances: a Prefect worker that rents one machine per training run, where there is capacity."""
