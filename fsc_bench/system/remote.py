"""Addresses of object stores, where a folder is meant: refused, with what to do in their place.

Results are renamed into place and a model is taken by making a file that only one job can make. A
file system promises both; an object store neither, so two jobs could score one model and leave a
torn result, without a word. Pictures are opened by the thousand, one member of an archive at a
time: that needs a file system too. What fsspec writes is therefore not used for folders at all.
"""

import re
from pathlib import Path

from fsc_bench.errors import UsageError

# What fsspec and the stores' own tools call them. http and https are sources of files, not folders.
SCHEMES = (
    "s3", "s3a", "s3n", "r2", "b2", "gs", "gcs", "az", "azure", "abfs", "abfss", "adl", "wasb",
    "wasbs", "oss", "obs", "cos", "cosn", "swift", "oci", "minio", "hdfs", "webhdfs", "viewfs",
    "dbfs", "gdrive", "dropbox", "ftp", "sftp", "ssh", "smb",
)  # fmt: skip
# A Path has lost one of its two slashes.
ADDRESS = re.compile(rf"(?:^|[:=@])((?:{'|'.join(SCHEMES)}):/{{1,2}}[^/].*)", re.I | re.S)


def refuse_remote(word: Path | str) -> None:
    """Raises UsageError, one line, for a folder, a file or a model on an object store."""
    found = ADDRESS.search(str(word))
    if found is None:
        return
    address = re.sub(r":/+", "://", found.group(1), count=1)
    raise UsageError(
        f"{address}: not a folder of this machine. Results are renamed into place and shared by "
        "files that one job alone can make, which an object store does not promise. To write: a "
        "local or shared folder, then a copy of it (`rclone copy`, `aws s3 sync`, `gsutil rsync`). "
        "To read: mount it (`rclone mount`, mountpoint-s3, gcsfuse) and name the mount."
    )
