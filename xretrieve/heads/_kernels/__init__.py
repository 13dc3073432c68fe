"""Values-only forms of what the heads compute, written for the caches of a CPU; the equations stand in the heads."""
