"""Descriptions of the checks of all assets: what each says when it passes."""

from __future__ import annotations

DESCRIPTIONS = {
    "accounting": "Each discovered sample is published, dropped, failed or undecided: the counts add up.",
    "blobs_present": "The store, or the source, has the bytes of each referenced content.",
    "drift": "The distributions of the cell are close to those of the parent and of the last runs.",
    "every_blob_probed": "Each content has a row of metadata or a recorded failure.",
    "every_sample_recorded": "Each listed sample has a row or a recorded failure.",
    "every_sample_segmented": "Each kept sample has segments or a recorded failure.",
    "every_segment_answered": "Each segment has a vector or a recorded failure, for each embedder.",
    "failed_share": "The share of failed samples is at most gates.max_failed_share of the spec.",
    "failed_share_above_parent": "The share of failed samples is not much above that of the parent version.",
    "failed_share_by_class": "The share of each cause is at most its limit in gates of the spec.",
    "languages_known": "The embedder knows the languages of the texts.",
    "recall": "The vector index finds the neighbours that an exact search finds.",
    "rows_complete": "The candidate of the feature table has each vector, once.",
    "sources_listed": "Each source of the spec can be listed, and lists samples.",
    "sources_matched": "Files, rows of side tables and links belong together; no sample is overlooked.",
    "sources_unchanged": "The sources are as they were listed when the version was frozen.",
    "splits_hold": "No group of equal or linked samples stands in more than one split.",
    "vectors_sound": "Vectors are finite, of unit length and of the declared dimension.",
}
