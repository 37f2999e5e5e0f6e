"""The store: the only code that writes the tables. Domain verbs, each one transaction, one vendor's SQL per dialect."""
