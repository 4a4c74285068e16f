# What the target `ec2` of docs/targets.md needs in an AWS account: a bucket for checkpoints, a secret, a role for the machines, a launch template
# with a security group that lets nothing in, and the permissions of the worker that rents them.
terraform {
  required_version = ">= 1.6"
  required_providers {
    aws = { source = "hashicorp/aws", version = ">= 5.60, < 7" }
  }
}

data "aws_caller_identity" "me" {}

locals {
  account = data.aws_caller_identity.me.account_id
  tags    = { "spaceport:owner" = var.name }
}
