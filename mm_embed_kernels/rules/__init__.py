"""Curation rules, one module each, discovered; may import media, similarity, contracts, plugins and sql."""

from mm_embed_kernels.rules.base import Rule, Verdict, rule_set, rules

__all__ = ["Rule", "Verdict", "rule_set", "rules"]
