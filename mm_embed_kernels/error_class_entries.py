"""Entries of the error class registry, by subject: name -> what is wrong, and what a person does about it.

Names are stored in failure tables, caches and listings: they never change. A listing is frozen with its
version, so that what it refuses is corrected in the source and listed again by a new version. `mm backfill`
tries the failures again that are marked retryable, and the others when libraries or limits of the sandbox
have changed; `mm redrive` tries chosen ones again at any time.
"""

from __future__ import annotations

# Causes that may be gone in seconds: the run itself computes such samples again after a pause. Whether a
# later run tries a failure again is a mark of each failure (`retryable`), not of its class.
TRANSIENT = frozenset({"fetch_error", "store_error"})

# Causes of which a busy machine, or one that lacks memory, may be guilty in place of the sample. Such a
# failure is marked retryable until several runs have seen it.
SUSPECTED = frozenset({"timeout", "memory_limit", "decoder_crash", "model_crash"})

# Stands for http_404, http_503 ...; see `mm_embed_kernels.error_classes.lookup`.
HTTP = "http_NNN"

_BACKFILL = "run `mm backfill DATASET@VERSION`"
_RELIST = "list it again: `mm register --from DATASET@VERSION`"
_OPEN = "`mm failures DATASET@VERSION --open SAMPLE_ID`"
_REDRIVE = "run `mm redrive DATASET@VERSION --class"

_LISTING = {
    "source_unlisted": (
        "A declared source cannot be listed, or lists no sample.",
        f"Correct what its `uri` names and {_BACKFILL}; `allow_empty: true` in the spec admits a source"
        " without samples.",
    ),
    "bad_name": (
        "The name of an archive or of a file of records is not UTF-8, or a name is too long.",
        f"Rename the file and {_RELIST}.",
    ),
    "linked_folder": (
        "A symbolic link leads to a folder; such links are not followed.",
        "Declare the folder as a source of its own, in the spec of a new version.",
    ),
    "path_escape": (
        "A path, symbolic link or archive member leads outside its source.",
        f"Move the file below the source and {_RELIST}; a list may name any local path with"
        " `fetch: {allow_private: true}`.",
    ),
    "not_a_file": (
        "The path or archive member is a folder, device, socket, pipe or sparse file.",
        f"Remove it from the source, or replace it by a regular file, and {_RELIST}.",
    ),
    "bad_url": (
        "The reference is neither a path nor a URL that can be requested, or it holds credentials.",
        f"Correct the reference in the list and {_RELIST}.",
    ),
}

_RECORDS = {
    "bad_table": (
        "A file of records cannot be read, or not to its end.",
        f"Write the file again in its format and {_RELIST}.",
    ),
    "bad_record": (
        "A record is malformed: it is no JSON object, is too long or has a wrong number of fields.",
        f"Correct the record that the message names and {_RELIST}.",
    ),
    "missing_field": (
        "The record lacks a field that the spec's `record` block names.",
        f"Add the field and {_RELIST}, or correct `record` in the spec of a new version.",
    ),
    "schema_mismatch": (
        "A value does not have the type that the spec's `schema` or `record` block declares.",
        f"Correct the value and {_RELIST}, or correct the type in the spec of a new version.",
    ),
    "duplicate_key": (
        "Several records or members of a source have this id.",
        f"Make the ids unique and {_RELIST}.",
    ),
    "duplicate_row": (
        "A side table describes a file several times, with different values; the first row counts.",
        f"Remove the wrong row from the side table and {_RELIST}.",
    ),
}

_ARCHIVES = {
    "bad_archive": (
        "The archive is damaged, or is neither tar nor zip.",
        f"Pack it again and {_RELIST}.",
    ),
    "empty_archive": (
        "The archive has no member that is a sample of its source, while other archives have some.",
        f"Remove the archive, or correct `members` in the spec, and {_RELIST}.",
    ),
    "bad_compression": (
        "The compressed file is damaged.",
        f"Compress it again and {_RELIST}.",
    ),
    "decompression_bomb": (
        "The content unpacks or decodes to far more than its size.",
        f"Inspect it with {_OPEN}; store what is genuine unpacked, or smaller, and {_RELIST}.",
    ),
    "encrypted": (
        "The archive member or document is encrypted.",
        f"Pack the archive, or save the document, without a password and {_RELIST}.",
    ),
    "linked_member": (
        "The archive member is a link; only regular members are samples.",
        f"Pack the file that it leads to (tar --dereference) and {_RELIST}.",
    ),
    "nested_archive": (
        "The archive member is an archive itself.",
        "Unpack it and declare it as a source of its own, in the spec of a new version.",
    ),
    "unsupported_member": (
        "The zip member uses a compression method that cannot be unpacked here.",
        f"Pack the archive with deflate and {_RELIST}.",
    ),
}

_FETCHING = {
    "fetch_error": (
        "The source cannot be read.",
        f"Check that the source answers, then {_BACKFILL}.",
    ),
    HTTP: (
        "The server answers with HTTP status NNN.",
        f"After 408, 425, 429 or 5xx {_BACKFILL}. After any other status correct the server and {_REDRIVE}"
        f" {HTTP}`, or correct the URL and {_RELIST}.",
    ),
    "connection_error": (
        "The connection to the server fails, or ends before the object does.",
        f"Check the network and the server, then {_BACKFILL}.",
    ),
    "unknown_host": (
        "The name of the host has no address.",
        f"Check DNS, then {_BACKFILL}; or correct the URL and {_RELIST}.",
    ),
    "tls_error": (
        "The TLS connection is refused, for example because of the server's certificate.",
        f"Renew the certificate, or install its authority on this machine, then {_BACKFILL}.",
    ),
    "too_many_redirects": (
        "The URL redirects without end.",
        f"Correct the server and {_REDRIVE} too_many_redirects`, or correct the URL and {_RELIST}.",
    ),
    "refused_address": (
        "The URL leads to an address that is not public, or to a file system that a list may not name.",
        "Admit it in the spec of a new version: `fetch: {allow: [s3://BUCKET/FOLDER/]}` of the source for a"
        " bucket, `{allow_private: [NETWORK]}` for addresses, or `true` for another file system.",
    ),
    "timeout": (
        "The server, the decoder or the model takes longer than its limit.",
        f"Server: {_BACKFILL}, or raise `fetch.timeout_s` in the spec of a new version. Decoder and model:"
        f" {_BACKFILL} when the machine is less busy, which tries such samples until three runs have seen it;"
        f" then raise `item_seconds` of the `sandbox` resource, or split the content; {_REDRIVE} timeout`.",
    ),
    "too_large": (
        "The object exceeds `fetch.max_bytes`, or has more pixels than are decoded.",
        f"Raise `fetch.max_bytes` in the spec of a new version, or store a smaller copy and {_RELIST}.",
    ),
    "not_found": (
        "The object was listed and is gone, or what names it leads nowhere.",
        f"Put it back and {_BACKFILL}, or correct what names it and {_RELIST}.",
    ),
    "permission_denied": (
        "The run may not read the object.",
        f"Grant the run's user or credentials read access, then {_BACKFILL}.",
    ),
    "source_changed": (
        "The object is no longer the one that was listed.",
        f"Put that one back and {_BACKFILL}, or {_RELIST}.",
    ),
    "not_referable": (
        "The object is part of a file, or its source tells no change, so that it cannot be referenced.",
        "Set `blobs: copy` for its source, in the spec of a new version.",
    ),
    "forgotten": (
        "The content was removed by `mm forget` and is not ingested again.",
        "Remove it from the source, so that later versions do not list it.",
    ),
}

_STORE = {
    "store_error": (
        "The store cannot be read or written, or the machine lacks disk space, memory or file handles.",
        f"Check with `mm doctor`, then {_BACKFILL}.",
    ),
    "blob_missing": (
        "A blob is neither in the store nor where it is referenced.",
        f"Restore it in its source if it is gone from there, then {_BACKFILL}, which fetches it again.",
    ),
    "blob_damaged": (
        "A stored blob no longer has its hash.",
        f"To fetch it again, {_BACKFILL}; `mm doctor --verify` checks all blobs.",
    ),
}

_CONTENT = {
    "zero_length": (
        "The sample has no bytes.",
        f"Replace the file or remove it from the source, and {_RELIST}.",
    ),
    "truncated": (
        "The content ends before its format, or its archive, says.",
        f"Store a complete copy and {_RELIST}; `on_partial: keep_prefix` in the spec keeps the readable part"
        " of media.",
    ),
    "wrong_modality": (
        "The content is of another modality than its source declares.",
        "Move it to a source of its modality, or declare `modality: auto`, in the spec of a new version.",
    ),
    "unsupported_format": (
        "The content is in a format that cannot be decoded here.",
        f"Convert it to a supported format and {_RELIST}.",
    ),
    "encoding_unknown": (
        "The text, or a field of the record, reads without damage in no known encoding.",
        f"Convert it to UTF-8 and {_RELIST}.",
    ),
    "no_audio": (
        "The container holds no sound.",
        f"Replace the file or remove it from the source, and {_RELIST}.",
    ),
    "no_video": (
        "The container holds no moving pictures.",
        f"Replace the file or remove it from the source, and {_RELIST}.",
    ),
    "no_samples": (
        "The recording is well formed, but has not one sample of sound.",
        f"Replace the file or remove it from the source, and {_RELIST}.",
    ),
    "no_frames": (
        "The video is well formed, but has not one frame.",
        f"Replace the file or remove it from the source, and {_RELIST}.",
    ),
    "no_segments": (
        "The sample has nothing to embed.",
        "Drop such samples earlier by a validation rule; `mm failures DATASET@VERSION --suggest` proposes"
        " rules.",
    ),
}

_COMPUTING = {
    "decode_error": (
        "The decoder refuses the content as damaged, or raises an exception.",
        f"Inspect it with {_OPEN}; repair or convert it and {_RELIST}.",
    ),
    "decoder_crash": (
        "The content ends the decoder's process.",
        f"After SIGKILL free memory, then {_BACKFILL}, which tries such samples until three runs have seen"
        f" it; otherwise update the decoding library and {_BACKFILL}, or convert the content and {_RELIST}.",
    ),
    "bad_answer": (
        "The decoder's process answers what no decoder answers, or more than the sandbox allows.",
        f"Inspect the content with {_OPEN}: it may have taken over the decoder. Update the decoding library,"
        f" or raise `answer_mb` of the `sandbox` resource, then {_BACKFILL}.",
    ),
    "memory_limit": (
        "Decoding takes more memory than the sandbox allows.",
        f"{_BACKFILL[0].upper()}{_BACKFILL[1:]}, which tries such samples until three runs have seen it; then"
        " raise `memory_mb` of the `sandbox` resource.",
    ),
    "embedding_error": (
        "The embedder raises an exception.",
        f"Correct it or update its libraries, then {_REDRIVE} embedding_error`.",
    ),
    "transcription_error": (
        "The transcriber raises an exception.",
        f"Correct it or update its libraries, then {_REDRIVE} transcription_error`.",
    ),
    "model_crash": (
        "The input ends the model's process.",
        f"After SIGKILL free memory, then {_BACKFILL}, which tries such samples until three runs have seen"
        f" it; otherwise update the model's libraries and {_REDRIVE} model_crash`.",
    ),
    "bad_vector": (
        "The vector is not finite, of unit norm and of the declared dimension.",
        f"Inspect the input with {_OPEN}; correct the embedder, raise its version and {_BACKFILL}.",
    ),
}

_DECIDING = {
    "contract": (
        "A plug-in returns a value of another shape, dtype or form than it declares.",
        f"Correct the plug-in, raise its version and {_BACKFILL}.",
    ),
    "contract_violation": (
        "A row does not fit the contract of its table.",
        f"Correct the plug-in or program that wrote the row, then {_BACKFILL}.",
    ),
    "rejected_by_rule": (
        "A rule of the spec's `validation` block refuses the sample.",
        "Accept it, or change the rule in the spec of a new version.",
    ),
}

_ANSWERING = {
    "bad_request": (
        "The request has an argument that is unknown, of another type, or out of its range.",
        "Correct the argument that the message names.",
    ),
    "unauthorized": (
        "The request has no token that the service knows.",
        "Send `Authorization: Bearer TOKEN`; a token in a URL is never read.",
    ),
    "forbidden": (
        "The service is not started with what the request asks for, or another site sends the request.",
        "Start `mm serve` with the option that the message names, or send the request from its own pages.",
    ),
    "request_too_large": (
        "The body of the request has more bytes than the service takes.",
        "Send less, or start `mm serve` with a larger bound.",
    ),
    "request_timeout": (
        "The request arrives, or is answered, later than the service waits.",
        "Send it again; narrow a filter down, or ask for less.",
    ),
    "busy": (
        "The service works on as many requests as it may.",
        "Send the request again after the seconds that `Retry-After` names.",
    ),
    "internal_error": (
        "A mistake of the program; its cause is in the log of the service.",
        "Report it with the lines of the log.",
    ),
}

# Subject -> name -> (meaning, action).
SUBJECTS: dict[str, dict[str, tuple[str, str]]] = {
    "listing sources": _LISTING,
    "reading records": _RECORDS,
    "unpacking archives": _ARCHIVES,
    "fetching": _FETCHING,
    "the store": _STORE,
    "content": _CONTENT,
    "decoding and models": _COMPUTING,
    "contracts and rules": _DECIDING,
    "answering requests": _ANSWERING,
}
