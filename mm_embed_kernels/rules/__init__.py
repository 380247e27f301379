"""Curation rules, one module each, discovered. May import media, plugins and the rooms below them."""

from mm_embed_kernels.rules.base import Rule, Verdict, rule_set, rules

__all__ = ["Rule", "Verdict", "rule_set", "rules"]
