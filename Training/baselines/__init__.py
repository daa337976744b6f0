"""Other people's ways to make a film, each small and in our own code: what the film cascade is measured against."""
