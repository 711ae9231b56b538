"""A CA of its own, and certificates from it, made with the openssl command: good for a day."""

from __future__ import annotations

import subprocess
from pathlib import Path


class Authority:
    """Certificates and keys as files in `folder`; `ca` is what clients must trust."""

    def __init__(self, folder: Path, name: str = "ca") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self.ca, self._key = folder, folder / f"{name}.pem", folder / f"{name}.key"
        _openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "1",
                 "-subj", f"/CN={name}", "-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=keyCertSign",
                 "-keyout", str(self._key), "-out", str(self.ca))

    def issue(self, file: str, names: str, usage: str = "serverAuth") -> tuple[Path, Path]:
        """Certificate and key; `names` as openssl writes them: `DNS:localhost,IP:127.0.0.1`."""
        certificate, key, request = (self._folder / f"{file}.{end}" for end in ("pem", "key", "csr"))
        _openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-subj", f"/CN={file}",
                 "-keyout", str(key), "-out", str(request))
        extensions = self._folder / f"{file}.ext"
        extensions.write_text(f"subjectAltName={names}\nextendedKeyUsage={usage}\n")
        _openssl("x509", "-req", "-in", str(request), "-CA", str(self.ca), "-CAkey", str(self._key), "-CAcreateserial",
                 "-days", "1", "-extfile", str(extensions), "-out", str(certificate))
        return certificate, key


def _openssl(*arguments: str) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True, timeout=30)
