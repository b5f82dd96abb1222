"""Numbers and arrays to PNG files and a report. Knows matplotlib and nothing of models, data or training."""
