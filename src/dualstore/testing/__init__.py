"""What users' tests need: real servers, started and ended by context managers."""
