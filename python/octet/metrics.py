"""How far one tensor is from another, of one pair or streamed over many (octet/debug/metrics.h). x is the reference."""
from ._octet import _metrics

ErrorStatistics = _metrics.ErrorStatistics
Share = _metrics.Share
Detection = _metrics.Detection
compute_sqnr = _metrics.compute_sqnr
compute_normalized_l2_error = _metrics.compute_normalized_l2_error
compute_cosine_similarity = _metrics.compute_cosine_similarity
compute_max_abs_error = _metrics.compute_max_abs_error
compute_kl_divergence = _metrics.compute_kl_divergence
argmax_agreement = _metrics.argmax_agreement
sequence_agreement = _metrics.sequence_agreement
character_agreement = _metrics.character_agreement
mask_overlap = _metrics.mask_overlap
top_k = _metrics.top_k
detections = _metrics.detections
found_again = _metrics.found_again
mean_average_precision = _metrics.mean_average_precision
