"""The REST server and the search page: one gallery over HTTP (`xretrieve serve`)."""
