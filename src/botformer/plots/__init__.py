"""Numbers and arrays -> PNG files and an HTML report. Depends on matplotlib, not on models, data or training."""
