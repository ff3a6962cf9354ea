# octet on Debian 12:  docker build -t octet . && docker run --rm octet --version
FROM debian:12 AS build
WORKDIR /octet
COPY . .
RUN scripts/setup.sh python package && make package

FROM debian:12-slim
COPY --from=build /octet/build-package/packages/*.deb /tmp/
RUN apt-get update && apt-get install -y --no-install-recommends /tmp/liboctet0*.deb /tmp/octet-tools*.deb \
    && rm -rf /var/lib/apt/lists/* /tmp/*.deb
ENTRYPOINT ["octet"]
