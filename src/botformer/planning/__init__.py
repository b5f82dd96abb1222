"""A folder of images and the minutes there are -> a recipe."""
