"""Which data set is read, and what its publisher says of its files: known to the stage that fetches them and to the one that reads them."""
