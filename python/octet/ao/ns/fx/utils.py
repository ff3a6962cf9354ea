"""PyTorch's metrics under PyTorch's path; octet.metrics has more."""
from ....metrics import (
    compute_cosine_similarity as compute_cosine_similarity, compute_normalized_l2_error as compute_normalized_l2_error,
    compute_sqnr as compute_sqnr)
