"""Chapter 16's entry points for more than one machine: `spark` (Apache Spark) and `ddp` (torchrun)."""
