"""Datasets: one file each, one interface for all (:class:`xretrieve.data.base.RetrievalDataset`)."""
