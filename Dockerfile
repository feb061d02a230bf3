# The images: one static binary each and nothing else. Building them pulls no image.
#
#   RUSTFLAGS='-C target-feature=+crt-static' cargo build --profile image --target x86_64-unknown-linux-gnu -p weir-broker -p weir-operator --bins
#   docker build --target weir-broker -t weir-broker target/x86_64-unknown-linux-gnu/image
#
# The user is a number, because the image has no /etc/passwd.
FROM scratch AS weir-operator
COPY weir-operator /
USER 65532:65532
ENTRYPOINT ["/weir-operator"]

FROM scratch AS weir-broker
COPY weir-broker /
USER 65532:65532
ENTRYPOINT ["/weir-broker"]
