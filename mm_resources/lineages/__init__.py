"""Lineages: tables whose Lance versions are dataset versions. May import storage and the rooms below it.

A dataset version mostly repeats an earlier one, its *base*. Both are versions of one Lance table, and the
later one writes what differs. Readers resolve a pin, or the ref of a stage, which names table, Lance version
and tag; no reader uses the head of the table, so that any writer may move it at any time. For a table of a
stage read "ref" for "pin" below; it has no indexes.

How a version is written:

1. The writer takes the number of the next pin before its work, and chooses a base: a version of the table
   that a pin names, and a tag keeps.
2. `differences.compare` joins the rows of the base with those that the cell would write, on the key and a
   hash of the row. It finds the addresses of the rows that go, and the numbers of those that come.
3. `bounds.reason_to_rewrite` decides whether a difference is worth it. If not, the cell is written whole into
   a table of its own, which becomes the base of later versions.
4. `commits.write_files` writes the rows that come, once. Where `bounds.tail_of` finds many small fragments
   behind the base, their rows go into the same new fragment.
5. `commits.mark_deleted` writes the deletion files of the rows that go. Still no version names any of it.
6. The burst: `commits.restore` makes the base the head again, `commits.update` commits deletions and new
   fragments at once, `commits.extend_indexes` indexes the new fragments and leaves the rest of each index
   alone. Lance rebases a commit that does not conflict on top of another writer's, so that each of the three
   has to be exactly the version behind the one that it was made on. Otherwise it is garbage that no pin
   names, and the burst is repeated; nothing but manifests and the small index is written again.
7. The candidate is tested, and a tag named after dataset version, pin and Lance version keeps it.
8. The pin is created exclusively. This is the publish, and the one fence: a writer that was suspended at any
   step moves the head, makes a version that no pin names, and fails here.

A stage may know beforehand which rows differ: `changes.changed_owners` compares the two versions of what it
reads, by the fragments and deleted rows that they do not share. It then writes the rows of these owners, and
step 2 compares them with the base's rows of the same owners alone.

A writer that is killed leaves files and versions that no pin names; upkeep removes them after its period of
grace. No step removes or alters a file that a version of another pin names.
"""
