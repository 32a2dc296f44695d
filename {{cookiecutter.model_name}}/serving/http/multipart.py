"""The file in a form: `multipart/form-data` (RFC 7578), as browsers and `curl --form` send it."""

from email.parser import BytesParser
from email.policy import HTTP
from http import HTTPStatus

from serving.http.problem import Problem


def only_file(body: bytes, content_type: str) -> bytes:
    """Return the content of the one part that is a file. Raises Problem where there is none, or several."""
    message = BytesParser(policy=HTTP).parsebytes(b"content-type: " + content_type.encode() + b"\r\n\r\n" + body)
    parts = [part for part in message.iter_parts() if part.get_content_disposition() == "form-data"]
    files = [part for part in parts if part.get_filename() is not None]
    if len(files) != 1:
        raise Problem(
            HTTPStatus.UNPROCESSABLE_ENTITY,
            f"the form has {len(files)} files among its {len(parts)} parts and must have one: curl --form file=@a.png",
        )
    content = files[0].get_payload(decode=True)
    return content if isinstance(content, bytes) else b""
