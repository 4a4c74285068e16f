"""What `data_register` is made of: reading rows, the contract, dedupe and split on disk, Parquet, the card."""
