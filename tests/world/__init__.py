"""Other people's libraries, in their own languages, against the simulated Discord: see README.md here."""
