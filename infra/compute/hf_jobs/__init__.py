"""Training on Hugging Face Jobs: a Prefect worker that rents one Job per training run. It stands where AutoTrain stood, which its makers have deprecated."""
