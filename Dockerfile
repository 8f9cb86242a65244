# The image is what scripts/image-root lays out: the one static binary, with the exact row meter, CA roots and time zones. It runs as nobody,
# needs no writable root, and keeps everything in /data.
FROM --platform=$BUILDPLATFORM golang:1.26-alpine AS build
RUN apk add --no-cache ca-certificates tzdata
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
ARG TARGETOS
ARG TARGETARCH
RUN GOOS=$TARGETOS GOARCH=$TARGETARCH sh scripts/image-root /image

FROM scratch
# The owner is said again, since not every builder keeps it between stages.
COPY --from=build --chown=65532:65532 /image/data /data
COPY --from=build /image/etc /etc
COPY --from=build /image/usr /usr
COPY --from=build /image/persqld /persqld
USER 65532:65532
ENV PERSQLD_DATA=/data
VOLUME /data
EXPOSE 8080
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 CMD ["/persqld", "healthcheck"]
ENTRYPOINT ["/persqld"]
CMD ["serve"]
