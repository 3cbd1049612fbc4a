"""Speed of the built wheel, as ratios within one run: machines are noisy, ratios less so."""
