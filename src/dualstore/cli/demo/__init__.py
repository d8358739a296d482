"""`dualstore demo`: a whole migration of real data under live traffic, with faults, and proof at the end."""
