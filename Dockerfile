# The image holds the one static binary, CA roots and time zones; it runs as nobody and writes to /data alone.
FROM golang:1.26-alpine AS build
RUN apk add --no-cache ca-certificates tzdata && mkdir -p /empty/data
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
RUN CGO_ENABLED=0 go build -trimpath -buildvcs=false -ldflags=-s -o /persqld ./cmd/persqld

FROM scratch
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/
COPY --from=build /usr/share/zoneinfo /usr/share/zoneinfo
COPY --from=build /persqld /persqld
COPY --from=build --chown=65532:65532 /empty/data /data
USER 65532:65532
ENV PERSQLD_DATA=/data
VOLUME /data
EXPOSE 8080
ENTRYPOINT ["/persqld"]
CMD ["serve"]
