"""Score: from similarities to outcomes, means and intervals. evaluate.py is to be read first."""
