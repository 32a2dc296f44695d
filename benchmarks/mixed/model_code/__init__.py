"""A model of a mixed table, as somebody would bring it: four columns of text, six of numbers, any of them missing."""
