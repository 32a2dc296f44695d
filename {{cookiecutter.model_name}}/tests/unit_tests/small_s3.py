"""S3 in memory, as far as files need it: versions, ranges, uploads in parts, and conditions."""

import hashlib
import io
from dataclasses import dataclass, field
from itertools import count

from botocore.exceptions import ClientError


def error(code, operation="Operation"):
    return ClientError({"Error": {"Code": code, "Message": code}}, operation)


@dataclass
class SmallS3:
    """The methods of boto3's client; `before` is called before each, with its name and its arguments."""

    objects: dict = field(default_factory=dict)
    uploads: dict = field(default_factory=dict)
    numbers: count = field(default_factory=count)
    before: object = lambda operation, arguments: None

    def put(self, bucket, key, content):
        """Store an object as its next version and return its ETag."""
        version = {"content": content, "id": f"version-{next(self.numbers)}", "etag": hashlib.md5(content).hexdigest()}
        self.objects.setdefault((bucket, key), []).append(version)
        return f'"{version["etag"]}"'

    def present(self, bucket, key):
        """Return the present version of an object, None where there is none."""
        versions = self.objects.get((bucket, key), [None])
        return versions[-1]

    def content(self, bucket, key):
        return self.present(bucket, key)["content"]

    def keys(self, bucket):
        return sorted(key for (name, key), versions in self.objects.items() if name == bucket and versions[-1])

    def get_paginator(self, operation):
        self.before(operation, {})
        return self

    def paginate(self, **where):
        for key in self.keys(where["Bucket"]):
            if key.startswith(where["Prefix"]):
                yield {"Contents": [{"Key": key}]}

    def head_object(self, **where):
        self.before("head_object", where)
        if not (found := self.present(where["Bucket"], where["Key"])):
            raise error("404")
        return {"VersionId": found["id"], "ETag": f'"{found["etag"]}"', "ContentLength": len(found["content"])}

    def get_object(self, **where):
        self.before("get_object", where)
        found = [one for one in self.objects[where["Bucket"], where["Key"]] if one and one["id"] == where["VersionId"]]
        if not found:
            raise error("NoSuchVersion")
        if found[0]["etag"] != where["IfMatch"]:
            raise error("PreconditionFailed")
        first, last = map(int, where["Range"].removeprefix("bytes=").split("-"))
        return {"Body": io.BytesIO(found[0]["content"][first : last + 1])}

    def put_object(self, **where):
        self.before("put_object", where)
        self.check(where)
        return {"ETag": self.put(where["Bucket"], where["Key"], where["Body"])}

    def create_multipart_upload(self, **where):
        self.before("create_multipart_upload", where)
        self.uploads[name := f"upload-{next(self.numbers)}"] = {}
        return {"UploadId": name}

    def upload_part(self, **where):
        self.before("upload_part", where)
        self.uploads[where["UploadId"]][where["PartNumber"]] = where["Body"]
        return {"ETag": hashlib.md5(where["Body"]).hexdigest()}

    def complete_multipart_upload(self, **where):
        self.before("complete_multipart_upload", where)
        self.check(where)
        parts = self.uploads.pop(where["UploadId"])
        content = b"".join(parts[part["PartNumber"]] for part in where["MultipartUpload"]["Parts"])
        return {"ETag": self.put(where["Bucket"], where["Key"], content)}

    def abort_multipart_upload(self, **where):
        self.before("abort_multipart_upload", where)
        del self.uploads[where["UploadId"]]

    def delete_object(self, **where):
        self.before("delete_object", where)
        self.check(where)
        self.objects[where["Bucket"], where["Key"]].append(None)

    def check(self, where):
        found = self.present(where["Bucket"], where["Key"])
        if "IfNoneMatch" in where and found:
            raise error("PreconditionFailed")
        if "IfMatch" in where and not found:
            raise error("NoSuchKey")
        if "IfMatch" in where and found["etag"] != where["IfMatch"]:
            raise error("PreconditionFailed")
