# The secret's value is put in by a person, so that it lies in no state file: one JSON object of environment variables, such as HF_TOKEN.
resource "aws_secretsmanager_secret" "train" {
  name        = "${var.name}/train"
  description = "Environment variables of Spaceport's training machines, as one JSON object."
  tags        = local.tags
}

resource "aws_iam_role" "machine" {
  name = "${var.name}-machine"
  tags = local.tags
  assume_role_policy = jsonencode({
    Version   = "2012-10-17"
    Statement = [{ Effect = "Allow", Action = "sts:AssumeRole", Principal = { Service = "ec2.amazonaws.com" } }]
  })
}

resource "aws_iam_role_policy" "machine" {
  name = "train"
  role = aws_iam_role.machine.id
  policy = templatefile("${path.module}/policies/machine.json.tftpl", {
    secret = aws_secretsmanager_secret.train.arn
    bucket = aws_s3_bucket.checkpoints.arn
  })
}

resource "aws_iam_instance_profile" "machine" {
  name = "${var.name}-machine"
  role = aws_iam_role.machine.name
}

# Nothing comes in: the machine asks, nobody asks it.
resource "aws_security_group" "machine" {
  name        = "${var.name}-machine"
  description = "Spaceport training machines: out, never in"
  vpc_id      = var.vpc_id
  tags        = local.tags
}

resource "aws_vpc_security_group_egress_rule" "machine" {
  security_group_id = aws_security_group.machine.id
  description       = "To the Hub, the Prefect API and AWS"
  cidr_ipv4         = "0.0.0.0/0"
  ip_protocol       = "-1"
}

resource "aws_launch_template" "machine" {
  name                                 = "${var.name}-machine"
  image_id                             = var.image_id
  instance_initiated_shutdown_behavior = "terminate"
  update_default_version               = true
  vpc_security_group_ids               = [aws_security_group.machine.id]
  tags                                 = local.tags

  iam_instance_profile { name = aws_iam_instance_profile.machine.name }

  metadata_options {
    http_endpoint               = "enabled"
    http_tokens                 = "required"
    http_put_response_hop_limit = 1
  }

  block_device_mappings {
    device_name = var.root_device
    ebs {
      volume_size           = var.volume_gib
      volume_type           = "gp3"
      encrypted             = true
      delete_on_termination = true
    }
  }
}
