#!/usr/bin/python3
"""Writes octet's bill of materials in SPDX 2.3 (JSON): the library, and the Debian packages whose code it links.

scripts/sbom.py LIBOCTET [-o octet.spdx.json]

Which packages these are is asked of the machine: the shared libraries that LIBOCTET names as needed (objdump), and
the libraries that are headers only or linked statically (HEADERS below). Versions, homepages and sources are dpkg's.
The same library on the same packages gives the same bytes: the date is SOURCE_DATE_EPOCH or that of the last commit.
"""
import argparse
import datetime
import hashlib
import json
import os
import re
import subprocess
import sys

# What no list of needed libraries shows.
HEADERS = ["nlohmann-json3-dev", "libcli11-dev", "libxnnpack-dev", "libpthreadpool-dev", "libonnx-dev"]
# docs/dependencies.md says the same.
LICENCES = {
    "libdnnl": "Apache-2.0", "libxnnpack": "BSD-3-Clause", "libpthreadpool": "BSD-2-Clause", "libonnx": "Apache-2.0",
    "libprotobuf": "BSD-3-Clause", "libfmt": "MIT", "nlohmann-json3": "MIT", "libcli11": "BSD-3-Clause",
    "libjpeg62": "IJG AND BSD-3-Clause", "libpng": "libpng-2.0", "libre2": "BSD-3-Clause", "libxxhash": "BSD-2-Clause",
    "zlib1g": "Zlib", "libgomp": "GPL-3.0-or-later WITH GCC-exception-3.1",
    "libstdc++6": "GPL-3.0-or-later WITH GCC-exception-3.1", "libgcc": "GPL-3.0-or-later WITH GCC-exception-3.1",
    "libc6": "LGPL-2.1-or-later",
}


def output(*command):
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def needed(library):
    names = re.findall(r"NEEDED\s+(\S+)", output("objdump", "-p", library))
    found = dict(re.findall(r"^\s*(\S+) => (\S+)", output("ldd", library), re.M))
    return [os.path.realpath(found[n]) for n in names if n in found]


def package_of(path):
    for candidate in (path, path.removeprefix("/usr")):
        r = subprocess.run(["dpkg-query", "-S", candidate], capture_output=True, text=True)
        if r.returncode == 0:
            return r.stdout.split(":")[0].split(",")[0]
    sys.exit(f"sbom.py: {path}: no Debian package has it")


def licence(package):
    for prefix, name in LICENCES.items():
        if package.startswith(prefix):
            return name
    return "NOASSERTION"


def describe(package):
    fields = output("dpkg-query", "-W", "-f", "${Version}\n${source:Package}\n${source:Version}\n${Homepage}\n", package)
    version, source, source_version, homepage = (fields.split("\n") + [""] * 4)[:4]
    return {
        "SPDXID": "SPDXRef-" + re.sub(r"[^A-Za-z0-9.-]", "-", package),
        "name": package,
        "versionInfo": version,
        "sourceInfo": f"Debian source package {source} {source_version}",
        "supplier": "Organization: Debian",
        "downloadLocation": homepage or "NOASSERTION",
        "filesAnalyzed": False,
        "licenseConcluded": licence(package),
        "licenseDeclared": licence(package),
        "copyrightText": "NOASSERTION",
        "externalRefs": [{
            "referenceCategory": "PACKAGE-MANAGER", "referenceType": "purl",
            "referenceLocator": f"pkg:deb/debian/{package}@{version}?distro=debian-12"}],
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("library")
    parser.add_argument("-o", "--output", default="octet.spdx.json")
    a = parser.parse_args()
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    with open(os.path.join(root, "octet/base/version.h"), encoding="utf-8") as f:
        version = ".".join(re.findall(r"_VERSION_[A-Z]+ ([0-9]+)", f.read())[:3])
    with open(a.library, "rb") as f:
        digest = hashlib.sha256(f.read()).hexdigest()
    epoch = os.environ.get("SOURCE_DATE_EPOCH") or output("git", "-C", root, "log", "-1", "--format=%ct").strip()
    created = datetime.datetime.fromtimestamp(int(epoch), datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    names = {package_of(p) for p in needed(a.library)}
    for p in HEADERS:
        if subprocess.run(["dpkg-query", "-W", p], capture_output=True).returncode == 0:
            names.add(p)
    packages = [describe(p) for p in sorted(names)]
    octet = {
        "SPDXID": "SPDXRef-octet", "name": "octet", "versionInfo": version,
        "supplier": "Organization: the octet authors", "downloadLocation": "NOASSERTION", "filesAnalyzed": False,
        "checksums": [{"algorithm": "SHA256", "checksumValue": digest}],
        "licenseConcluded": "Apache-2.0", "licenseDeclared": "Apache-2.0", "copyrightText": "NOASSERTION",
    }
    document = {
        "spdxVersion": "SPDX-2.3", "dataLicense": "CC0-1.0", "SPDXID": "SPDXRef-DOCUMENT", "name": f"octet-{version}",
        "documentNamespace": f"https://spdx.org/spdxdocs/octet-{version}-{digest[:16]}",
        "creationInfo": {"created": created, "creators": ["Tool: octet-scripts/sbom.py"]},
        "packages": [octet] + packages,
        "relationships": [{"spdxElementId": "SPDXRef-DOCUMENT", "relationshipType": "DESCRIBES",
                           "relatedSpdxElement": "SPDXRef-octet"}] +
                         [{"spdxElementId": "SPDXRef-octet", "relationshipType": "DEPENDS_ON",
                           "relatedSpdxElement": p["SPDXID"]} for p in packages],
    }
    with open(a.output, "w", encoding="utf-8") as f:
        json.dump(document, f, indent=1)
        f.write("\n")
    print(f"sbom: {a.output}: octet {version} and {len(packages)} packages")


if __name__ == "__main__":
    main()
