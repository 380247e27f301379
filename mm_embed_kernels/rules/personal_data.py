"""Rule `personal_data`: addresses and phone numbers in a text."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from mm_embed_kernels.rules.base import Rule, Verdict


@dataclass
class PersonalData(Rule):
    """Text with e-mail addresses, phone numbers in international form (phonenumbers) or public IP addresses.

    The same kinds as Soldaini et al., "Dolma" (2024).
    """

    name = "personal_data"
    modalities = ("text",)
    columns = ("emails", "phone_numbers", "ip_addresses")

    max_count: int = 0

    def judge(self, batch: pa.Table) -> Verdict:
        count = pc.add(pc.add(batch["emails"], batch["phone_numbers"]), batch["ip_addresses"])
        return Verdict(pc.less_equal(count, self.max_count), count, "holds personal data")
