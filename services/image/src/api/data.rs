//! `/v2/images/{id}/file`.

use crate::{App, app::Download};
use maru_base::Result;
use maru_http::{Reply, Request};
use std::sync::Arc;

const TYPE: &str = "application/octet-stream";

pub(super) async fn upload(app: Arc<App>, mut request: Request) -> Result<Reply> {
    let id = request.param("id").to_owned();
    app.upload(&mut request, &id, false).await?;
    Ok(Reply::empty(204))
}

pub(super) async fn stage(app: Arc<App>, mut request: Request) -> Result<Reply> {
    let id = request.param("id").to_owned();
    app.upload(&mut request, &id, true).await?;
    Ok(Reply::empty(204))
}

pub(super) async fn download(app: Arc<App>, request: Request) -> Result<Reply> {
    let Some(Download {
        image,
        stream,
        part,
        total,
    }) = app.download(&request, request.param("id")).await?
    else {
        return Ok(Reply::empty(204));
    };
    let reply = match part {
        None => Reply::stream(200, TYPE, Some(total), stream),
        Some((start, length)) => Reply::stream(206, TYPE, Some(length), stream).header(
            "content-range",
            &format!("bytes {start}-{}/{total}", start + length - 1),
        ),
    };
    // The checksum is that of the whole image, also beside a part of it.
    Ok(match &image.checksum {
        Some(md5) => reply.header("content-md5", md5),
        None => reply,
    })
}
