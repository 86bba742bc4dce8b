"""The endpoint of chapter 13: artefacts of a trained model, the stores that search them, and the service on top."""
