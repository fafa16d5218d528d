# An image that holds the binary and nothing to build it with. It listens on every address, where the newcomer's credentials are
# refused: without an app the server stops and names the three variables to set (HERALD_APP_ID, HERALD_APP_KEY, HERALD_APP_SECRET).
FROM rust:1.95-slim-bookworm AS build
WORKDIR /herald
COPY . .
RUN cargo build --release --locked --bin herald

FROM debian:bookworm-slim
RUN apt-get update && apt-get install -y --no-install-recommends ca-certificates && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --no-create-home herald && install -d -o herald /var/lib/herald
COPY --from=build /herald/target/release/herald /usr/local/bin/herald
ENV HERALD_LISTEN=0.0.0.0:6001 HERALD_METRICS_LISTEN=0.0.0.0:9601 HERALD_DATA_DIR=/var/lib/herald
USER herald
WORKDIR /var/lib/herald
VOLUME /var/lib/herald
EXPOSE 6001 9601
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=5s CMD ["bash", "-c", \
    "exec 3<>/dev/tcp/127.0.0.1/9601 && printf 'GET /health/live HTTP/1.0\\r\\n\\r\\n' >&3 && head -n 1 <&3 | grep -q ' 200 '"]
ENTRYPOINT ["herald"]
