# Two images from one build: `manager` and `agent`.
#   docker build --target manager -t riposte .
#   docker build --target agent -t riposte-agent .

FROM rust:1.95-slim-bookworm AS build
WORKDIR /build
COPY . .
RUN cargo build --release --locked --workspace --bins

FROM debian:bookworm-slim AS manager
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --no-create-home --shell /usr/sbin/nologin riposte \
    && install -d -o riposte -g riposte -m 0700 /data /enrollment
COPY --from=build /build/target/release/riposte /usr/bin/riposte
USER riposte
ENV RIPOSTE_DATA_DIR=/data
VOLUME /data
EXPOSE 8480
HEALTHCHECK --interval=5s --timeout=6s --start-period=30s CMD ["riposte", "status"]
ENTRYPOINT ["riposte"]
# It listens on loopback until it is told otherwise: see docker-compose.yml and docs/security.md.
CMD ["serve"]

FROM debian:bookworm-slim AS agent
# What the actions run: nft for firewall-drop, ip for route-null, usermod (passwd) for disable-account.
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates iproute2 nftables passwd \
    && rm -rf /var/lib/apt/lists/*
COPY --from=build /build/target/release/riposte-agent /usr/bin/riposte-agent
COPY deploy/agent-entrypoint.sh /usr/bin/agent-entrypoint
ENV RIPOSTE_STATE_DIR=/var/lib/riposte-agent
VOLUME /var/lib/riposte-agent
# Root, because accounts and firewalls are root's; grant it no more capabilities than docker-compose.yml does.
ENTRYPOINT ["agent-entrypoint"]
