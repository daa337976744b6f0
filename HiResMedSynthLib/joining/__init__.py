"""How a lesion is made to fit the scan that it goes into: resolution, noise, vessels, and the test of the result."""
