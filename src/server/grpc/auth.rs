//! The service `Auth`: users, roles, and who says that they are which.
//!
//! Always: a password is hashed here, before anything is asked of the shard, and goes no further. Left out: who may ask
//! for any of this, and what comes of it (`auth`, by way of the shard); what is in a token (`gateway/tokens`).

use super::{refused, stubs};
use crate::api::ReadMode;
use crate::api::etcd::proto::etcdserverpb as pb;
use crate::api::etcd::{self, Fault};
use crate::auth::{AuthAnswer, AuthCommand, AuthQuery};
use crate::server::gateway::{Gate, asker, new_token_key};
use pb::ResponseHeader;
use std::sync::Arc;
use tonic::{Request, Response, Status};

/// The service.
#[derive(Debug)]
pub(in super::super) struct AuthService(pub(super) Arc<Gate>);

impl AuthService {
    /// Changes something; the header of the answer.
    async fn change(&self, command: AuthCommand) -> Result<Option<ResponseHeader>, Status> {
        let (standing, revision) = self.0.change_users(command).await.map_err(refused)?;
        Ok(Some(standing.header(revision)))
    }

    /// What a message asks to be changed. If it cannot be, that is told to those who may change anything (etcd's order).
    async fn meant<T>(&self, meant: Result<T, Fault>) -> Result<T, Status> {
        if meant.is_err() {
            self.0.only_root().await.map_err(refused)?;
        }
        meant.map_err(refused)
    }

    /// Asks something, for whoever asks.
    async fn told(&self, query: AuthQuery) -> Result<(Option<ResponseHeader>, AuthAnswer), Status> {
        let asked = self.0.ask_about_users(asker(), query, ReadMode::Linearizable).await;
        let (standing, revision, answer) = asked.map_err(refused)?;
        Ok((Some(standing.header(revision)), answer))
    }

    /// Asks for names.
    async fn names(&self, query: AuthQuery) -> Result<(Option<ResponseHeader>, Vec<String>), Status> {
        match self.told(query).await? {
            (header, AuthAnswer::Names(names)) => Ok((header, names)),
            _ => Err(refused(Fault::Unexpected)),
        }
    }
}

#[tonic::async_trait]
impl stubs::auth_server::Auth for AuthService {
    async fn auth_enable(
        &self,
        _: Request<pb::AuthEnableRequest>,
    ) -> Result<Response<pb::AuthEnableResponse>, Status> {
        let token_key = new_token_key().map_err(refused)?;
        let header = self.change(AuthCommand::Enable { token_key }).await?;
        Ok(Response::new(pb::AuthEnableResponse { header }))
    }

    async fn auth_disable(
        &self,
        _: Request<pb::AuthDisableRequest>,
    ) -> Result<Response<pb::AuthDisableResponse>, Status> {
        let header = self.change(AuthCommand::Disable).await?;
        Ok(Response::new(pb::AuthDisableResponse { header }))
    }

    async fn auth_status(
        &self,
        _: Request<pb::AuthStatusRequest>,
    ) -> Result<Response<pb::AuthStatusResponse>, Status> {
        match self.told(AuthQuery::Status).await? {
            (header, AuthAnswer::Status { is_enabled: enabled, revision }) => {
                Ok(Response::new(pb::AuthStatusResponse { header, enabled, auth_revision: revision.0 }))
            }
            _ => Err(refused(Fault::Unexpected)),
        }
    }

    async fn authenticate(
        &self,
        request: Request<pb::AuthenticateRequest>,
    ) -> Result<Response<pb::AuthenticateResponse>, Status> {
        let pb::AuthenticateRequest { name, password } = request.into_inner();
        let (standing, revision, token) = self.0.log_in(name, password).await.map_err(refused)?;
        Ok(Response::new(pb::AuthenticateResponse { header: Some(standing.header(revision)), token }))
    }

    async fn user_add(
        &self,
        request: Request<pb::AuthUserAddRequest>,
    ) -> Result<Response<pb::AuthUserAddResponse>, Status> {
        let (name, password) = self.meant(etcd::user_add(request.into_inner())).await?;
        let secret = match password {
            Some(password) => Some(self.0.hash_password(password).await.map_err(refused)?),
            None => None,
        };
        let header = self.change(AuthCommand::AddUser { name, secret }).await?;
        Ok(Response::new(pb::AuthUserAddResponse { header }))
    }

    async fn user_get(
        &self,
        request: Request<pb::AuthUserGetRequest>,
    ) -> Result<Response<pb::AuthUserGetResponse>, Status> {
        let (header, roles) = self.names(AuthQuery::User { name: request.into_inner().name }).await?;
        Ok(Response::new(pb::AuthUserGetResponse { header, roles }))
    }

    async fn user_list(
        &self,
        _: Request<pb::AuthUserListRequest>,
    ) -> Result<Response<pb::AuthUserListResponse>, Status> {
        let (header, users) = self.names(AuthQuery::Users).await?;
        Ok(Response::new(pb::AuthUserListResponse { header, users }))
    }

    async fn user_delete(
        &self,
        request: Request<pb::AuthUserDeleteRequest>,
    ) -> Result<Response<pb::AuthUserDeleteResponse>, Status> {
        let header = self.change(AuthCommand::DeleteUser { name: request.into_inner().name }).await?;
        Ok(Response::new(pb::AuthUserDeleteResponse { header }))
    }

    async fn user_change_password(
        &self,
        request: Request<pb::AuthUserChangePasswordRequest>,
    ) -> Result<Response<pb::AuthUserChangePasswordResponse>, Status> {
        let (name, password) = self.meant(etcd::user_change_password(request.into_inner())).await?;
        let secret = self.0.hash_password(password).await.map_err(refused)?;
        let header = self.change(AuthCommand::ChangePassword { name, secret }).await?;
        Ok(Response::new(pb::AuthUserChangePasswordResponse { header }))
    }

    async fn user_grant_role(
        &self,
        request: Request<pb::AuthUserGrantRoleRequest>,
    ) -> Result<Response<pb::AuthUserGrantRoleResponse>, Status> {
        let pb::AuthUserGrantRoleRequest { user, role } = request.into_inner();
        let header = self.change(AuthCommand::GrantRole { user, role }).await?;
        Ok(Response::new(pb::AuthUserGrantRoleResponse { header }))
    }

    async fn user_revoke_role(
        &self,
        request: Request<pb::AuthUserRevokeRoleRequest>,
    ) -> Result<Response<pb::AuthUserRevokeRoleResponse>, Status> {
        let pb::AuthUserRevokeRoleRequest { name: user, role } = request.into_inner();
        let header = self.change(AuthCommand::RevokeRole { user, role }).await?;
        Ok(Response::new(pb::AuthUserRevokeRoleResponse { header }))
    }

    async fn role_add(
        &self,
        request: Request<pb::AuthRoleAddRequest>,
    ) -> Result<Response<pb::AuthRoleAddResponse>, Status> {
        let header = self.change(AuthCommand::AddRole { name: request.into_inner().name }).await?;
        Ok(Response::new(pb::AuthRoleAddResponse { header }))
    }

    async fn role_get(
        &self,
        request: Request<pb::AuthRoleGetRequest>,
    ) -> Result<Response<pb::AuthRoleGetResponse>, Status> {
        match self.told(AuthQuery::Role { name: request.into_inner().role }).await? {
            (header, AuthAnswer::Grants(grants)) => {
                let perm = grants.into_iter().map(etcd::permission).collect();
                Ok(Response::new(pb::AuthRoleGetResponse { header, perm }))
            }
            _ => Err(refused(Fault::Unexpected)),
        }
    }

    async fn role_list(
        &self,
        _: Request<pb::AuthRoleListRequest>,
    ) -> Result<Response<pb::AuthRoleListResponse>, Status> {
        let (header, roles) = self.names(AuthQuery::Roles).await?;
        Ok(Response::new(pb::AuthRoleListResponse { header, roles }))
    }

    async fn role_delete(
        &self,
        request: Request<pb::AuthRoleDeleteRequest>,
    ) -> Result<Response<pb::AuthRoleDeleteResponse>, Status> {
        let header = self.change(AuthCommand::DeleteRole { name: request.into_inner().role }).await?;
        Ok(Response::new(pb::AuthRoleDeleteResponse { header }))
    }

    async fn role_grant_permission(
        &self,
        request: Request<pb::AuthRoleGrantPermissionRequest>,
    ) -> Result<Response<pb::AuthRoleGrantPermissionResponse>, Status> {
        let command = self.meant(etcd::role_grant_permission(request.into_inner())).await?;
        let header = self.change(command).await?;
        Ok(Response::new(pb::AuthRoleGrantPermissionResponse { header }))
    }

    async fn role_revoke_permission(
        &self,
        request: Request<pb::AuthRoleRevokePermissionRequest>,
    ) -> Result<Response<pb::AuthRoleRevokePermissionResponse>, Status> {
        let header = self.change(etcd::role_revoke_permission(request.into_inner())).await?;
        Ok(Response::new(pb::AuthRoleRevokePermissionResponse { header }))
    }
}
